"""The list of cases, which cases_*.py fill and conformance.py runs."""

CASES = []


def case(section, title, **settings):
    """Makes a case of a function, which gets a connection that has shaken hands; `greet=False`: only TLS."""

    def add(function):
        CASES.append((f"{section} {title}", function, settings))
        return function

    return add
