// Fastify and pg; a process for each worker.
'use strict'

const cluster = require('node:cluster')
const fastify = require('fastify')
const pg = require('pg')

const DAY = 86400000

pg.types.setTypeParser(pg.types.builtins.DATE, text => text)

function birthdayIn (year, born) {
  const [, month, day] = born.split('-').map(Number)
  const leap = new Date(Date.UTC(year, 1, 29)).getUTCMonth() === 1
  return Date.UTC(year, month - 1, month === 2 && day === 29 && !leap ? 28 : day)
}

function greeting (username, born) {
  const today = Math.floor(Date.now() / DAY) * DAY
  const year = new Date(today).getUTCFullYear()
  let next = birthdayIn(year, born)
  if (next < today) next = birthdayIn(year + 1, born)
  const days = (next - today) / DAY
  const text = days ? `Your birthday is in ${days} day(s)` : 'Happy birthday!'
  return `Hello, ${username}! ${text}`
}

function isBirthday (text) {
  const time = Date.parse(`${text}T00:00:00Z`)
  // Date.parse takes 30 February for 1 March in some engines: compare.
  return time <= Date.now() && new Date(time).toISOString().startsWith(text)
}

function serve () {
  const pool = new pg.Pool({ connectionString: process.env.DB_URI, max: 32 })
  const app = fastify()

  app.get('/hello/:username', {
    schema: {
      response: { 200: { type: 'object', properties: { message: { type: 'string' } } } }
    }
  }, async (request, reply) => {
    const { username } = request.params
    const { rows } = await pool.query({
      name: 'find',
      text: 'SELECT date_of_birth FROM users WHERE username = $1',
      values: [username]
    })
    if (!rows.length) return reply.code(404).send()
    return { message: greeting(username, rows[0].date_of_birth) }
  })

  app.put('/hello/:username', {
    schema: {
      body: {
        type: 'object',
        required: ['dateOfBirth'],
        properties: { dateOfBirth: { type: 'string', pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' } }
      }
    }
  }, async (request, reply) => {
    const born = request.body.dateOfBirth
    if (!isBirthday(born)) return reply.code(400).send()
    await pool.query({
      name: 'save',
      text: `INSERT INTO users (username, date_of_birth) VALUES ($1, $2)
             ON CONFLICT (username) DO UPDATE SET date_of_birth = EXCLUDED.date_of_birth
             WHERE users.date_of_birth <> EXCLUDED.date_of_birth`,
      values: [request.params.username, born]
    })
    return reply.code(204).send()
  })

  app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
}

const workers = Number(process.env.WEB_CONCURRENCY)
if (workers > 1 && cluster.isPrimary) {
  for (let i = 0; i < workers; i++) cluster.fork()
} else {
  serve()
}
