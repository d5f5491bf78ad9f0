"""The properties that Outlook keeps of a message and of its files (MAPI), by their numbers in hexadecimal.

In a .msg (message.py) and in a `winmail.dat` (tnef.py) they are the same.
"""

SUBJECT, BODY, HTML, RTF = "0037", "1000", "1013", "1009"
SENDER, SENDER_SMTP, SENDER_ADDRESS = "0C1A", "5D01", "0C1F"
TO, CC = "0E04", "0E03"
SENT, DELIVERED = "0039", "0E06"
FILE_NAME, SHORT_NAME, CONTENT, CONTENT_ID = "3707", "3704", "3701", "3712"
CODE_PAGE = "3FFD"
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp")
"""How the names of files end that a text may show itself."""
