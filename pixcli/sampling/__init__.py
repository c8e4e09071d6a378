"""What alignment compares: scale spaces, feature maps and the patches cut from them."""
