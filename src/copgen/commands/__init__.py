"""What the commands of `copgen` do: arguments to calls. A file a part of the work; heavy imports are inside the functions."""
