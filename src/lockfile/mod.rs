//! Lock files of pip, PEP 751, uv and Poetry, read into pins. Pure.
