"""Where images come from: a CelebA tree, an image folder with a table, or the built-in faces."""
