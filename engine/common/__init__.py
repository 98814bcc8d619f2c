"""Tools that any folder may use: files, progress, timing, HTML pages."""
