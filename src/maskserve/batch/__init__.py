"""Many photos to tables: rows, their files, and going on where a run was killed."""
