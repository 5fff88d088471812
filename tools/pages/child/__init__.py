"""The reading child: turns the bytes of a page into text, with no files, no network and little memory."""
