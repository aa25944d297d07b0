"""Plots as Vega-Lite specifications: the page fills them in the browser, and here they become figures for papers."""
