"""Scripted experts for MiniWoB++ families: clicking.py and forms.py, on the words of page.py."""
