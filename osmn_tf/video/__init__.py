"""Videos and folders of images: reading frame by frame, in any order that is asked for, and writing. No backend."""
