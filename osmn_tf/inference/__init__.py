"""From a video and a mask to masks: the segmenter and the files it reads and writes."""
