// net/http and pgx; as many cores as the others have processes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const (
	prefix = "/hello/"
	find   = "SELECT date_of_birth FROM users WHERE username = $1"
	save   = `INSERT INTO users (username, date_of_birth) VALUES ($1, $2)
		ON CONFLICT (username) DO UPDATE SET date_of_birth = EXCLUDED.date_of_birth
		WHERE users.date_of_birth <> EXCLUDED.date_of_birth`
)

type birthday struct {
	DateOfBirth string `json:"dateOfBirth"`
}

type greeting struct {
	Message string `json:"message"`
}

func today() time.Time {
	return time.Now().UTC().Truncate(24 * time.Hour)
}

func birthdayIn(year int, born time.Time) time.Time {
	day := time.Date(year, born.Month(), born.Day(), 0, 0, 0, 0, time.UTC)
	if day.Month() != born.Month() { // 29 February in a common year
		day = day.AddDate(0, 0, -1)
	}
	return day
}

func greet(username string, born time.Time) greeting {
	now := today()
	next := birthdayIn(now.Year(), born)
	if next.Before(now) {
		next = birthdayIn(now.Year()+1, born)
	}
	text := "Happy birthday!"
	if days := int(next.Sub(now).Hours() / 24); days > 0 {
		text = fmt.Sprintf("Your birthday is in %d day(s)", days)
	}
	return greeting{fmt.Sprintf("Hello, %s! %s", username, text)}
}

type server struct {
	pool *pgxpool.Pool
}

func (s server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	username := strings.TrimPrefix(r.URL.Path, prefix)
	switch r.Method {
	case http.MethodGet:
		s.get(w, r, username)
	case http.MethodPut:
		s.put(w, r, username)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (s server) get(w http.ResponseWriter, r *http.Request, username string) {
	var born time.Time
	err := s.pool.QueryRow(r.Context(), find, username).Scan(&born)
	if errors.Is(err, pgx.ErrNoRows) {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	body, _ := json.Marshal(greet(username, born))
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}

func (s server) put(w http.ResponseWriter, r *http.Request, username string) {
	var body birthday
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	born, err := time.Parse("2006-01-02", body.DateOfBirth)
	if err != nil || born.After(today()) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if _, err := s.pool.Exec(r.Context(), save, username, born); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func main() {
	workers, err := strconv.Atoi(os.Getenv("WEB_CONCURRENCY"))
	if err != nil {
		log.Fatal(err)
	}
	runtime.GOMAXPROCS(workers)
	config, err := pgxpool.ParseConfig(os.Getenv("DB_URI"))
	if err != nil {
		log.Fatal(err)
	}
	config.MaxConns = int32(32 * workers)
	pool, err := pgxpool.ConnectConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	http.Handle(prefix, server{pool})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), nil))
}
