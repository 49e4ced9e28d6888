"""Every rule by which a document is dropped, by its reader or later.

Each has a stable name, what datatrove calls it, and what it means. Names are part of manifests and reports; they
stay as they are when datatrove renames its own.
"""

RULES = {
    "redirect": "a redirect, which has no text of its own",
    "namespace": "a page of a wiki that is no article",
    "navigation": "a book's table of contents",
    "licence_text": "the licence that a collection puts around its books",
    "not_html": "not a page of HTML",
    "http_status": "the server answered with something other than 200",
    "bad_http": "no sound HTTP response",
    "too_large": "larger than the reader takes",
    "no_text": "no text was left",
    "minimum_characters": "shorter than minimum_characters",
    "minimum_score": "rated lower than minimum_score",
    "no_score": "not rated, where minimum_score asks for it",
    "blocked_domain": "the page's host, or a domain above it, is on the blocklist",
    "language": "most likely written in a language that is not wanted",
    "language_uncertain": "in a wanted language, but not with the probability asked for",
    "gopher_empty": "no text",
    "gopher_duplicate_paragraphs": "too many of the paragraphs repeat an earlier one",
    "gopher_duplicate_paragraph_characters": "too much of the text is in repeated paragraphs",
    "gopher_duplicate_lines": "too many of the lines repeat an earlier one",
    "gopher_duplicate_line_characters": "too much of the text is in repeated lines",
    **{f"gopher_top_{n}_gram": f"one sequence of {n} words makes up too much of the text" for n in range(2, 11)},
    **{
        f"gopher_duplicate_{n}_grams": f"repeated sequences of {n} words make up too much of the text"
        for n in range(2, 11)
    },
    "gopher_few_words": "too few words",
    "gopher_many_words": "too many words",
    "gopher_short_words": "words are too short on average",
    "gopher_long_words": "words are too long on average",
    "gopher_hashes": "too many # for its words",
    "gopher_ellipses": "too many ellipses for its words",
    "gopher_bullets": "too many lines start with a bullet",
    "gopher_ellipsis_lines": "too many lines end in an ellipsis",
    "gopher_not_alphabetic": "too few words have a letter",
    "gopher_stop_words": "too few of the language's most common words",
    "c4_lorem_ipsum": "contains lorem ipsum",
    "c4_curly_bracket": "contains a curly bracket",
    "c4_few_sentences": "too few sentences in the lines that are left",
    "fineweb_empty": "no text",
    "fineweb_line_ends": "too few lines end in punctuation",
    "fineweb_short_lines": "too many lines are short",
    "fineweb_duplicate_lines": "too much of the text is in repeated lines",
    "fineweb_list": "too many line breaks for its words",
    "duplicate": "the same text as an earlier document",
    "near_duplicate": "nearly the same text as an earlier document",
    "duplicate_paragraphs": "nothing was left without the paragraphs that came before or that its host repeats",
    "contaminated": "shares an n-gram with an evaluation set",
}

# datatrove's name to ours
GOPHER_REPETITION = {
    "empty": "gopher_empty",
    "dup_para_frac": "gopher_duplicate_paragraphs",
    "dup_para_char_frac": "gopher_duplicate_paragraph_characters",
    "dup_line_frac": "gopher_duplicate_lines",
    "dup_line_char_frac": "gopher_duplicate_line_characters",
    **{f"top_{n}_gram": f"gopher_top_{n}_gram" for n in range(2, 11)},
    **{f"duplicated_{n}_n_grams": f"gopher_duplicate_{n}_grams" for n in range(2, 11)},
}
GOPHER_QUALITY = {
    "gopher_short_doc": "gopher_few_words",
    "gopher_long_doc": "gopher_many_words",
    "gopher_below_avg_threshold": "gopher_short_words",
    "gopher_above_avg_threshold": "gopher_long_words",
    "gopher_too_many_hashes": "gopher_hashes",
    "gopher_too_many_ellipsis": "gopher_ellipses",
    "gopher_too_many_bullets": "gopher_bullets",
    "gopher_too_many_end_ellipsis": "gopher_ellipsis_lines",
    "gopher_below_alpha_threshold": "gopher_not_alphabetic",
    "gopher_enough_stop_words": "gopher_stop_words",
}
C4 = {
    "lorem_ipsum": "c4_lorem_ipsum",
    "curly_bracket": "c4_curly_bracket",
    "too_few_sentences": "c4_few_sentences",
}
FINEWEB = {
    "empty": "fineweb_empty",
    "line_punct_ratio": "fineweb_line_ends",
    "short_line_ratio": "fineweb_short_lines",
    "char_dup_ratio": "fineweb_duplicate_lines",
    "list_ratio": "fineweb_list",
}
