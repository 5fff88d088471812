"""Pages from outside: fetched behind a guard, read in a child without rights, told to the model in parts."""
