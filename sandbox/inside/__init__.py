"""The program inside a sandbox: runs code as it comes down a pipe and sends back what it did.

It is handed to Python as text, so it stands alone: the standard library only, Python 3.9 on, and imports within this
folder are relative. It shares its process with hostile code: nothing it says is trusted on the other side.
"""
