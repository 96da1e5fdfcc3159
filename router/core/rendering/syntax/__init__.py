"""The syntax of templates and expressions: the parser, their faults, and the names and fields that they read; floor
2.
"""
