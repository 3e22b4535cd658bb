"""What Sphinx needs of this project: the generated reference, and links to its files."""
