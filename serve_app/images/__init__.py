"""From bytes to pixels: formats, limits on the work of decoding, turning, resampling, thumbnails."""
