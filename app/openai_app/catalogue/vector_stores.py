"""Vector stores, their files and batches of files."""

from openai_app.catalogue.operation import JSON, PAGE, Operation
from openai_app.metering import VECTOR_STORE_SEARCH
from openai_app.owned.objects import VECTOR_STORE, VECTOR_STORE_FILE, VECTOR_STORE_FILE_BATCH

_TAG = "Vector stores"
_STORE = "/vector_stores/{vector_store_id}"
_FILE = "/vector_stores/{vector_store_id}/files/{vector_store_file_id}"
_FILE_BATCH = "/vector_stores/{vector_store_id}/file_batches/{file_batch_id}"

OPERATIONS = (
    Operation(
        "createVectorStore",
        "POST",
        "/vector_stores",
        _TAG,
        "Create a vector store",
        accepts=(JSON,),
        creates=VECTOR_STORE,
        example={"name": "Support FAQ"},
    ),
    Operation(
        "listVectorStores",
        "GET",
        "/vector_stores",
        _TAG,
        "List the vector stores",
        query=PAGE,
        lists=VECTOR_STORE,
    ),
    Operation("getVectorStore", "GET", _STORE, _TAG, "Retrieve a vector store"),
    Operation(
        "modifyVectorStore",
        "POST",
        _STORE,
        _TAG,
        "Change a vector store's name, expiry or metadata",
        accepts=(JSON,),
        example={"name": "Support FAQ, revised"},
    ),
    Operation("deleteVectorStore", "DELETE", _STORE, _TAG, "Delete a vector store", deletes=True),
    Operation(
        "searchVectorStore",
        "POST",
        f"{_STORE}/search",
        _TAG,
        "Search a vector store",
        meter=VECTOR_STORE_SEARCH,
        accepts=(JSON,),
        only_reads=True,
        example={"query": "What is the return policy?"},
    ),
    Operation(
        "createVectorStoreFile",
        "POST",
        f"{_STORE}/files",
        _TAG,
        "Put a file into a vector store",
        accepts=(JSON,),
        creates=VECTOR_STORE_FILE,
        example={"file_id": "file-abc123"},
    ),
    Operation(
        "listVectorStoreFiles",
        "GET",
        f"{_STORE}/files",
        _TAG,
        "List a vector store's files",
        query=(*PAGE, "filter"),
    ),
    Operation("getVectorStoreFile", "GET", _FILE, _TAG, "Retrieve a vector store's file"),
    Operation(
        "updateVectorStoreFileAttributes",
        "POST",
        _FILE,
        _TAG,
        "Change the attributes of a vector store's file",
        accepts=(JSON,),
        example={"attributes": {"year": 2026}},
    ),
    Operation(
        "deleteVectorStoreFile", "DELETE", _FILE, _TAG, "Take a file out of a vector store", deletes=True
    ),
    Operation(
        "retrieveVectorStoreFileContent",
        "GET",
        f"{_FILE}/content",
        _TAG,
        "Retrieve the text of a vector store's file",
    ),
    Operation(
        "createVectorStoreFileBatch",
        "POST",
        f"{_STORE}/file_batches",
        _TAG,
        "Put several files into a vector store",
        accepts=(JSON,),
        creates=VECTOR_STORE_FILE_BATCH,
        example={"file_ids": ["file-abc123", "file-def456"]},
    ),
    Operation("getVectorStoreFileBatch", "GET", _FILE_BATCH, _TAG, "Retrieve a batch of files"),
    Operation("cancelVectorStoreFileBatch", "POST", f"{_FILE_BATCH}/cancel", _TAG, "Cancel a batch of files"),
    Operation(
        "listFilesInVectorStoreBatch",
        "GET",
        f"{_FILE_BATCH}/files",
        _TAG,
        "List the files of a batch",
        query=(*PAGE, "filter"),
    ),
)
