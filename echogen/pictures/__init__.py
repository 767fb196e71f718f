"""Pictures for people: contact sheets, animations, and the page of `echogen stats --html`.

What is shown of datasets, plans and stores, and how it is drawn. Measures are taken in `measures`.
"""
