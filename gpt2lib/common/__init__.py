"""What everything else leans on: checks of settings, files that are whole or not there, hashes, facts of the machine.

It imports nothing of the package, and every other folder may call it.
"""
