"""What was finished becomes the next generation.

publish.py  the stage; parts.py  what the generation is made of; recipe.py  how its queries are embedded
refusals.py  what is not published
own_staging.py  the folder in which a run collects it, from its beginning until it is published
"""
