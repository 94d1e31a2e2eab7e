"""sync/_generated"""
