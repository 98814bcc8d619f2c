"""A page in the browser that shows a job's newest frames while it runs."""
