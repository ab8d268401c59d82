"""The report page: the text of one HTML file, made from the plain values of runs."""
