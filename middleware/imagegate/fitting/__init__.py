"""Fits a request to a contract: sizes, parameters, references and masks.

Pure; imports `contracts` and `protocol`, and is called by the layers Fit and References.
"""
