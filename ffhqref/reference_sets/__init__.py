"""From embeddings to pairs, identities, splits and references.

``build`` is the whole chain as one pure function; the modules it calls can be used alone:

* ``vectors``: checked embeddings and the one definition of their distance;
* ``pairs``: every pair below a threshold, exact, without the N x N matrix;
* ``groups``: identities from pairs, by the published rule or by others;
* ``splits``: train, val and test by identity;
* ``references``: which references a target has and in which order;
* ``audit``: chains and doubtful merges, a second network's opinion, threshold calibration, contact sheets;
* ``agesets``: same-age and cross-age sets (our own protocol);
* ``formats``, ``release``: ReF-LDM's published files, and a reference set as a folder of them;
* ``validate``: what is wrong with a reference set, ours or a downloaded one;
* ``agreement``: identities against the truth;
* ``simulate``: embeddings on the scale of FFHQ.
"""
