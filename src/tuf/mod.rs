//! The Update Framework, specification 1.0.34, client side, pure: bytes in, decisions out.
