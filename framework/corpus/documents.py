"""What every reader yields: one document."""

from dataclasses import dataclass


@dataclass
class Document:
    """One document of a raw file, before cleaning.

    `rejected` names the rule by which the reader itself turned the document down (a redirect, a page
    that is not HTML); its text is then not looked at. Such documents are yielded all the same, so that
    the report accounts for everything that was in the file.
    """

    id: str  # says where in the corpus it stands; unique within its file
    text: str = ""
    title: str = ""
    url: str = ""
    score: float | None = None  # how readers rated it, where the file says
    rejected: str = ""
