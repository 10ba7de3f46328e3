import assert from 'node:assert/strict'
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { parseKey, publicKeyOf } from '../address/key.ts'
import { readOrMakeKey } from './wireguard-key.ts'

describe('the key file', () => {
  let folder: string
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'wgkey-'))
  })
  after(() => rm(folder, { recursive: true }))

  test('is made with its folder when it is not there, for us alone to read, and stays', async () => {
    const file = join(folder, 'new', 'wgkey')
    const key = await readOrMakeKey(file)
    assert.equal((await stat(file)).mode & 0o777, 0o400)
    assert.equal(await readFile(file, 'utf8'), key.reveal())
    assert.notEqual(publicKeyOf(key.reveal()), key.reveal())
    assert.ok((await readOrMakeKey(file)).equals(key))
    assert.deepEqual(await readdir(join(folder, 'new')), ['wgkey'])
  })

  test('of several that make it at once, all have the same', async () => {
    const file = join(folder, 'race')
    const keys = await Promise.all(Array.from({ length: 20 }, () => readOrMakeKey(file)))
    assert.equal(new Set(keys.map((key) => key.reveal())).size, 1)
    assert.deepEqual(
      (await readdir(folder)).filter((name) => name.startsWith('race.')),
      [],
    )
  })

  test('of `wg genkey`, with the end of its line, is read', async () => {
    const file = join(folder, 'wg')
    const text = Buffer.alloc(32, 5).toString('base64')
    await writeFile(file, `${text}\n`)
    assert.equal((await readOrMakeKey(file)).reveal(), parseKey(text))
  })

  test('that is wrong is one error, which names it and not what is in it', async () => {
    const file = join(folder, 'bad')
    for (const text of ['', 'c2VjcmV0', `${Buffer.alloc(32, 5).toString('base64')}x`]) {
      await writeFile(file, text)
      await assert.rejects(readOrMakeKey(file), (error: Error) => {
        assert.equal(error.name, 'BackendError')
        assert.match(error.message, /the WireGuard key file .*\/bad has no key in it: .*32 bytes in base64/)
        return text === '' || !error.message.includes(text)
      })
      assert.equal(await readFile(file, 'utf8'), text)
    }
  })

  test('that cannot be read, or made, is an error that says why', async () => {
    await assert.rejects(readOrMakeKey(folder), { name: 'BackendError', message: /cannot be used: EISDIR/ })
    const file = join(folder, 'file')
    await writeFile(file, '')
    await chmod(file, 0o600)
    await assert.rejects(readOrMakeKey(join(file, 'wgkey')), {
      name: 'BackendError',
      message: /\/file\/wgkey cannot be used: ENOTDIR/,
    })
  })
})
