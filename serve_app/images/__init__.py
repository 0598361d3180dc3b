"""Turns bytes of image files into pixels: formats, limits of decoding, orientation, resampling, thumbnails."""
