/**
 * The file behind the embedded registry: opened, read, followed and written, with every way it can fail.
 *
 * Other processes, and people, may delete it, replace it, lock it or damage it at any moment. A path is therefore
 * never trusted to be the file that was opened: each write opens it anew and checks afterwards that it is still
 * there; a reader opens it again whenever `stat` shows something else. docs/adr/0004-sqlite-registry.md says why the
 * rollback journal and not WAL.
 */

import { randomInt, randomUUID } from 'node:crypto'
import { accessSync, constants, existsSync, linkSync, mkdirSync, rmSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { pathToFileURL } from 'node:url'
import type { Contents, Entry } from './entries.ts'
import { pause } from './pause.ts'
import { RegistryError } from './registry.ts'

/** SQLite's application_id: "twed". */
const APPLICATION = 0x74776564

/** SQLite's user_version. */
const SCHEMA_VERSION = 1

/** `created` is never used again (AUTOINCREMENT), so that it says which of two leases is older for good. */
const SCHEMA = `
  CREATE TABLE meta (incarnation TEXT NOT NULL) STRICT;
  CREATE TABLE config (id INTEGER PRIMARY KEY CHECK (id = 1), text TEXT NOT NULL) STRICT;
  CREATE TABLE leases (
    created INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    value TEXT NOT NULL,
    expires INTEGER
  ) STRICT;
  PRAGMA application_id = ${APPLICATION};
  PRAGMA user_version = ${SCHEMA_VERSION};
`

/** How long a writer blocks the event loop for a lock before it steps back; a commit takes a few milliseconds. */
const WRITER_TIMEOUT = 50

/** A lock that a reader meets is a commit in progress, unless it lasts. */
const LOCK_PATIENCE = 1000

export interface WriteOptions {
  /** For the operator's commands only: an agent never makes a registry. */
  readonly create: boolean
  /** Milliseconds in which a locked file is tried again. */
  readonly patience: number
  readonly signal: AbortSignal
}

/** Runs `work` in a transaction that is alone on the file. @throws {RegistryError} */
export async function write<T>(
  path: string,
  { create, patience, signal }: WriteOptions,
  work: (database: DatabaseSync) => T,
): Promise<T> {
  const deadline = Date.now() + patience
  for (;;) {
    signal.throwIfAborted()
    try {
      return writeOnce(path, create, work)
    } catch (error) {
      if (!isBusy(error) || Date.now() >= deadline) throw failure(path, error)
    }
    await pause(randomInt(10, 50), signal)
  }
}

function writeOnce<T>(path: string, create: boolean, work: (database: DatabaseSync) => T): T {
  if (create && !existsSync(path)) createFile(path)
  const opened = identity(path)
  const database = open(path, 'rw', WRITER_TIMEOUT)
  try {
    database.exec('BEGIN IMMEDIATE')
    if (create) initialise(database)
    checkSchema(path, database)
    const result = work(database)
    database.exec('COMMIT')
    if (identity(path) === opened) return result
    throw new RegistryError('unavailable', `${path} was replaced while it was written`)
  } finally {
    // Rolls back what was not committed.
    database.close()
  }
}

/** Made under another name and then given its own, so that nobody ever sees a registry without tables. */
function createFile(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
  const made = `${path}.${randomUUID()}`
  try {
    const database = open(made, 'rwc', WRITER_TIMEOUT)
    try {
      initialise(database)
    } finally {
      database.close()
    }
    linkSync(made, path)
  } catch (error) {
    // Somebody else was faster.
    if (!existsSync(path)) throw error
  } finally {
    rmSync(made, { force: true })
  }
}

/** Does nothing to a file that has tables; one that somebody made empty becomes a registry. */
function initialise(database: DatabaseSync): void {
  if (database.prepare('SELECT 1 FROM sqlite_schema').get() !== undefined) return
  database.exec(SCHEMA)
  database.prepare('INSERT INTO meta (incarnation) VALUES (?)').run(randomUUID())
}

function checkSchema(path: string, database: DatabaseSync): void {
  const application = pragma(database, 'application_id')
  const version = pragma(database, 'user_version')
  if (application === APPLICATION && version === SCHEMA_VERSION) return
  const problem =
    application === APPLICATION
      ? `was written by another version of tweed (schema ${version}, this one has ${SCHEMA_VERSION})`
      : 'is not a tweed registry'
  throw new RegistryError('unavailable', `${path} ${problem}`)
}

/** Reads the contents whenever they may have changed. */
export class Follower {
  readonly #path: string
  #database: DatabaseSync | undefined
  #stamp = ''
  #version: number | undefined
  #lockedSince: number | undefined

  constructor(path: string) {
    this.#path = path
  }

  /** Undefined when nothing changed. @throws {RegistryError} after which the next call starts afresh. */
  poll(): Contents | undefined {
    try {
      const contents = this.#read()
      this.#lockedSince = undefined
      return contents
    } catch (error) {
      if (isBusy(error)) {
        this.#lockedSince ??= performance.now()
        if (performance.now() - this.#lockedSince < LOCK_PATIENCE) return undefined
      }
      this.close()
      throw failure(this.#path, error)
    }
  }

  close(): void {
    this.#database?.close()
    this.#database = undefined
  }

  /** Never waits for a lock: the event loop has other work. */
  #read(): Contents | undefined {
    checkWritable(this.#path)
    const stamp = stampOf(this.#path)
    if (stamp !== this.#stamp) this.close()
    if (this.#database === undefined) {
      this.#database = open(this.#path, 'rw', 0)
      this.#stamp = stamp
      this.#version = undefined
    }
    // Two commits in one tick of the file system's clock leave one time stamp; this counter tells them apart.
    const version = pragma(this.#database, 'data_version')
    if (version === this.#version) return undefined
    const contents = readContents(this.#path, this.#database)
    this.#version = version
    return contents
  }
}

/** Everything, as of one moment. */
function readContents(path: string, database: DatabaseSync): Contents {
  database.exec('BEGIN')
  try {
    checkSchema(path, database)
    const meta = database.prepare('SELECT incarnation FROM meta').get()
    const config = database.prepare('SELECT text FROM config').get()
    return {
      incarnation: String(meta?.['incarnation']),
      config: config === undefined ? undefined : String(config['text']),
      entries: readEntries(database),
    }
  } finally {
    database.exec('ROLLBACK')
  }
}

/** The oldest first. 64-bit integers that somebody wrote are read as they are, not thrown over. */
export function readEntries(database: DatabaseSync): Entry[] {
  const select = database.prepare('SELECT key, value, expires, created FROM leases ORDER BY created')
  select.setReadBigInts(true)
  return select.all().map(({ key, value, expires, created }) => ({
    key: String(key),
    value: String(value),
    expires: expires === null ? undefined : Number(expires),
    created: Number(created),
  }))
}

function open(path: string, mode: 'rw' | 'rwc', timeout: number): DatabaseSync {
  const url = pathToFileURL(path)
  url.searchParams.set('mode', mode)
  return new DatabaseSync(url, { timeout })
}

function pragma(database: DatabaseSync, name: string): number {
  return Number(database.prepare(`PRAGMA ${name}`).get()?.[name])
}

function identity(path: string): string {
  const { dev, ino } = statSync(path)
  return `${dev}:${ino}`
}

function stampOf(path: string): string {
  const { dev, ino, size, mtimeNs } = statSync(path, { bigint: true })
  return `${dev}:${ino}:${size}:${mtimeNs}`
}

/**
 * A file that cannot be written counts as unavailable, though it can be read: nobody can renew a lease in it, so what
 * expires in it proves nothing.
 */
function checkWritable(path: string): void {
  statSync(path)
  try {
    for (const each of [path, dirname(path)]) accessSync(each, constants.W_OK)
  } catch (cause) {
    throw new RegistryError('unavailable', `${path} is read-only: no lease can be taken or renewed`, {
      cause,
    })
  }
}

const SQLITE_BUSY = 5
const SQLITE_READONLY = 8
const SQLITE_CORRUPT = 11
const SQLITE_NOTADB = 26

/** SQLite's primary result code. */
function resultCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number')
    return undefined
  return error.errcode & 0xff
}

function isBusy(error: unknown): boolean {
  return resultCode(error) === SQLITE_BUSY
}

/** What happened to the file, in words; an error that is not the file's fault is thrown on. */
function failure(path: string, error: unknown): RegistryError {
  if (error instanceof RegistryError) return error
  if (!(error instanceof Error) || !('code' in error)) throw error
  return new RegistryError('unavailable', `${path} ${problem(error)}`, { cause: error })
}

function problem(error: Error & { code: unknown }): string {
  if (error.code === 'ENOENT') return 'does not exist'
  const code = resultCode(error)
  if (code === SQLITE_BUSY) return 'is locked by another process'
  if (code === SQLITE_READONLY) return 'is read-only'
  const damaged = code === SQLITE_CORRUPT || code === SQLITE_NOTADB
  return `${damaged ? 'is damaged' : 'cannot be used'}: ${error.message}`
}
