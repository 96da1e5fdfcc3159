"""The syntax of templates and expressions: the parser, the faults, and the names and fields that a template reads;
floor 2.
"""
