"""Tools that any folder may use: files, CPU, progress, timing, tables, HTML pages."""
