"""A workspace over HTTP, for reading: the pages from disk, and the query API. The only importer of FastAPI and uvicorn.

application(workspace) -> ASGI application        every request passes `guard` first
/reports/...                                     the folders of pages; .json and .csv beside every .html
/api/...                                         runs, units, concepts, images, diff, sql; /api/openapi.json
/metrics                                         Prometheus text
"""
