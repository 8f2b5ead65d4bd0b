"""Find faces in photographs and place them as in CelebA's aligned portraits (the extra `align`)."""
