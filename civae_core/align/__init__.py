"""Faces found in photographs and brought to where CelebA's aligned portraits have them (the extra `align`)."""
