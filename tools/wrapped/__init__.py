"""Tools with something around them: another name, a limit, somebody who has to allow their calls."""
