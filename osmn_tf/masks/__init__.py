"""What the values of a mask mean, and every form in which masks are read, written and shown. No backend."""
