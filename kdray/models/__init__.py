"""Model folders: find one, check it, load a teacher, build a student."""
