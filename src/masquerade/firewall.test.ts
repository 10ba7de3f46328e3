import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { bring, DoesNotHold } from './firewall.ts'

/** A filter that holds one text, and a reader that wants another one. */
function filter(wanted: string) {
  const state = { text: '', writes: 0 }
  const read = async () => {
    const changes = [{ family: 'inet', chain: 'chain', why: `it was ${state.text}` }] as const
    return state.text === wanted
      ? { script: '', changes: [] }
      : { script: `${state.text}→${wanted}`, changes }
  }
  return { state, read }
}

describe('bring', () => {
  it('writes what differs, and nothing when nothing does', async () => {
    const { state, read } = filter('wanted')
    const write = async () => {
      state.text = 'wanted'
      state.writes++
    }
    assert.deepEqual(await bring(read, write), [{ family: 'inet', chain: 'chain', why: 'it was ' }])
    assert.deepEqual(await bring(read, write), [])
    assert.equal(state.writes, 1)
  })

  it('plans anew when another program wrote in between', async () => {
    const { state, read } = filter('wanted')
    const write = async () => {
      if (state.writes++ === 0) {
        state.text = 'theirs'
        throw new Error('conflict')
      }
      state.text = 'wanted'
    }
    assert.deepEqual(
      (await bring(read, write)).map(({ why }) => why),
      ['it was theirs'],
    )
  })

  it('does not write again what does not hold, or what failed as before', async () => {
    const { state, read } = filter('wanted')
    const write = async () => {
      state.writes++
    }
    await assert.rejects(bring(read, write), DoesNotHold)
    assert.equal(state.writes, 1)
    const refuse = async () => {
      await write()
      throw new Error('refused')
    }
    await assert.rejects(bring(read, refuse), /refused/)
    assert.equal(state.writes, 2)
  })

  it('gives up when it is never the same twice', async () => {
    const { state, read } = filter('wanted')
    const write = async () => {
      state.text = `theirs ${state.writes++}`
    }
    await assert.rejects(bring(read, write), DoesNotHold)
    assert.equal(state.writes, 3)
  })
})
