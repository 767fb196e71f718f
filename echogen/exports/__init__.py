"""What `echogen export` writes: one module a format, and what they share.

`selection` chooses rows and `naming` names them; `folder`, `nifti` and `nnunet` say which file
holds what; `writing` makes the files in worker processes; `target` keeps the output folder;
`tables` writes provenance and terms; `stores` copies a store into another.
"""
