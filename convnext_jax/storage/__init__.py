"""Files on the disk and in a bucket: written whole or not at all, verified and bounded before they are believed."""
