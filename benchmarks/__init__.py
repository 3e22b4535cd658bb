"""One module here for each question that people ask of such a system; packages for their parts."""
