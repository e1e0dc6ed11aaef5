"""The generated parts of the pages, a file a subject."""
