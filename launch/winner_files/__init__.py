"""What is copied into every winner's folder: load.py and, as preprocess.py, one of the other two. They import nothing
of subshot."""
