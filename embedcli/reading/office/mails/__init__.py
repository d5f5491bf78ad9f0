"""Mails, as the internet has them and as Outlook does.

mail.py, with what Outlook packs into some (tnef.py); message.py on ole.py; properties.py, which both have
"""
