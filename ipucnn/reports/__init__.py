"""Reports: HTML pages and text about finished runs, and the data that jobs record for them.

Jobs import `reports.evidence` and `reports.thumbnails` to record the data; commands import
`reports.result_files`, `reports.job` and `reports.contact_sheet`. Nothing here imports a job.
"""
