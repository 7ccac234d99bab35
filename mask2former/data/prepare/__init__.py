"""From the unpacked downloads to the files that training reads, a dataset a file."""
