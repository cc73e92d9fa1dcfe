"""Files, hub datasets or functions become tokenised rows."""
