//! Python's Simple API: names, file names, the JSON 1.4 model, HTML. Pure.
